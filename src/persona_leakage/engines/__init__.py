"""Everything that imports torch: training, generation and hidden states, loaded only when a node needs it."""
