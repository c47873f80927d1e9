"""Show results to people: blocks of text, tables and drawings, in a terminal, HTML or Markdown."""
