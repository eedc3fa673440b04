"""A model leaves the lab: predictions of new pictures, and files for other programs."""
