"""Images in: every source ends in the one Dataset; its order and augmentation are plans."""
