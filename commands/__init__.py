"""What only the scripts share: flags, checks of the config, and the cells of a sweep."""
