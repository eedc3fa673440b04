"""One run: conduct it, record it, save it, go on with it."""
