"""The golden files of spec/vectors, assembled by hand; shares no code with the package."""
