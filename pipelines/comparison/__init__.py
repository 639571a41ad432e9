"""`generalist compare`: presets trained under several seeds at equal cost, and measured by one protocol."""
