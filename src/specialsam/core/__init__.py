"""Types, frames, masks and errors that every other room builds on; imports no torch at run time."""
