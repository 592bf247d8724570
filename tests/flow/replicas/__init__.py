"""A package, so that its platform is stopped behind its last test."""
