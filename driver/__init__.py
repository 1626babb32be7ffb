"""detc: the compiler for object-detection models.

import detc

model = detc.load_model("config.yaml", "model_final.pth")  # detectron2's call convention
artifact = detc.compile(model, target="onnx")
artifact.save("model.onnx")
artifact([{"image": image}])  # [{"instances": Instances}]
"""

import lazy_loader

# The names stand in __init__.pyi, and are imported when they are first used: torch takes seconds.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
