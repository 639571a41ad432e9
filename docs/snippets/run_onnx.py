import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
images, labels = np.load("test_images.npy"), np.load("test_labels.npy")  # uint8 [n, C, H, W] and int64 [n]
correct = 0
for start in range(0, len(labels), 500):
    pixels = images[start : start + 500].astype(np.float32) / 255
    (logits,) = session.run(["logits"], {"images": pixels})
    correct += int((logits.argmax(axis=1) == labels[start : start + 500]).sum())
print(f"natural accuracy {100 * correct / len(labels):.1f} %, n = {len(labels)}")
