"""Time and memory that a run will take, from headers, options and a machine; nothing is decoded or trained."""
