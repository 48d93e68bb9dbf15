"""The Plan screen: a draft of a plan, its preview and its start."""
