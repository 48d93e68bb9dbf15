"""Charts of curves: axes, braille drawing, the panels that hold them."""
