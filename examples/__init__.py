"""Small applications that use cmpk, run from the root of the repository."""
