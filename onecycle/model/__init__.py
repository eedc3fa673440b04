"""Networks: pixels on the 0-255 scale in, logits out."""
