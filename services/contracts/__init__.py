"""What services say to each other: generated from `proto/` by `make proto`, committed, never edited."""
