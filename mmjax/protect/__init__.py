"""Makes photos and their captions unlearnable before their owner publishes them."""
