"""The Results screen: records listed, compared, exported and noted."""
