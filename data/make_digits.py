"""Write data/digits.npz from the copy of the UCI digits that ships with scikit-learn.

    pip install scikit-learn
    python data/make_digits.py

Not needed to use the course: its result is committed. Run it to see where the file comes from.
"""

import hashlib
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

TARGET = Path(__file__).parent / "digits.npz"

bunch = load_digits()
images = bunch.images.astype(np.uint8)  # (1797, 8, 8), counts 0..16 of dark pixels in 4x4 blocks
labels = bunch.target.astype(np.uint8)  # (1797,), 0..9
np.savez_compressed(TARGET, images=images, labels=labels)

print(f"{TARGET.name}: {TARGET.stat().st_size} bytes")
print("SHA-256 of images and labels:", hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest())
print("SHA-256 of the file:         ", hashlib.sha256(TARGET.read_bytes()).hexdigest())
