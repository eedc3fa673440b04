"""The verbs as Python functions, and the Run that they return; a file for each kind of verb."""
