"""Models in lower precision: float16 and int8, and the search for the nodes that must stay in float32."""
