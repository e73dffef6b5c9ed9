"""mmjax guards the data that multimodal contrastive models (CLIP) learn from."""
