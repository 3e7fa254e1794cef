"""For vLLM's environment without CUDA: the schemas without which torchvision's wheel does not import there.

`make test-vllm` copies it there, where Python runs it at every start. The operations themselves stay absent.
"""

import importlib.abc
import sys


class _Schemas(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "DEF")
            library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            sys.torchvision_schemas = library  # kept alive
        return None


sys.meta_path.insert(0, _Schemas())
