"""Making datasets: LR images, stores, centroids."""
