"""Where inputs come from when nobody sends them: candle files, signal sources, a simulated market."""
