"""What to do: the Recipe tree, the catalogue of named recipes, and changes to them."""
