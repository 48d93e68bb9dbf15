"""Arrow files of built data: written, checked, mapped; knows tables and folders, no recipes."""
