"""From finished runs to a table, figures and a sentence that a reviewer accepts."""
