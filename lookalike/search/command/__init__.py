"""What the commands of this package read and print: query images, hits, contact sheets."""
