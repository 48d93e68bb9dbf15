"""The Live screen: runs of one suite while they run."""
