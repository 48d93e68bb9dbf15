"""Screens, dialogs and their keys; what they show is computed in `view_models`."""
