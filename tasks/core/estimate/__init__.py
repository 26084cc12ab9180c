"""How long a run will take and how much memory, from headers, options and a machine; nothing is decoded or trained."""
