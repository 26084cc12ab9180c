"""Pixels of any picture as every stage takes them: 8 bits, sRGB, nothing transparent."""
