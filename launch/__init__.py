"""The programs: exchange files with one another, and hold nothing that the library could reuse."""
