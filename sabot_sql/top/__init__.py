"""What runs on this machine, for whoever asks: sessions publish it, ``sabot-sql top`` shows it."""
