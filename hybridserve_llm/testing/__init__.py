"""Public fakes for tests of this library and of what builds on it; never imported at run time."""
