"""What is known or guessed of rows: estimates, distinct counts, clustering, fingerprints of sub-plans."""
