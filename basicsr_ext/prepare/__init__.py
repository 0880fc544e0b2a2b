"""Making datasets: sub-images, LR images, stores, centroids, luminance; and checking them."""
