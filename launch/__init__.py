"""Run the programs; they exchange files, and hold nothing that the library could reuse."""
