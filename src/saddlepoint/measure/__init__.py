"""Measurements of a trained network. Everything is crafted and scored in float32."""
