"""Published poisonings, from shards to shards, with their ground truth beside them."""
