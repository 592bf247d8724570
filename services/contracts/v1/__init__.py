"""Version 1 of the contracts. Fields are only ever added; a v2 would be a new package."""
