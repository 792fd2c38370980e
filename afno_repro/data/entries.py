"""What is known of every data set in words: its use, its layout on the disk, its origin, its licence, how to get it."""

from dataclasses import dataclass

from afno_repro.data.camvid import LAYOUT as CAMVID_LAYOUT
from afno_repro.data.camvid import SOURCE as CAMVID_SOURCE
from afno_repro.data.cityscapes import LAYOUT as CITYSCAPES_LAYOUT
from afno_repro.data.cityscapes import SOURCE as CITYSCAPES_SOURCE
from afno_repro.data.fewshot import GAN_LAYOUT, GAN_SOURCE
from afno_repro.data.fewshot import LAYOUT as FEWSHOT_LAYOUT
from afno_repro.data.fewshot import SOURCE as FEWSHOT_SOURCE
from afno_repro.data.folder import LAYOUT as FOLDER_LAYOUT
from afno_repro.data.folder import SOURCE as FOLDER_SOURCE
from afno_repro.data.imagenet import LAYOUT as IMAGENET_LAYOUT
from afno_repro.data.imagenet import SOURCE as IMAGENET_SOURCE
from afno_repro.data.parquet import LAYOUT as PARQUET_LAYOUT
from afno_repro.data.parquet import SOURCE as PARQUET_SOURCE


@dataclass(frozen=True)
class Entry:
    """A data set, in words."""

    name: str
    purpose: str
    layout: str  # below the data root
    origin: str  # what it is, by whom
    licence: str
    source: str  # how to get it


INSIDE = "nothing to do: comes with the installed packages"
PHOTOS = Entry(
    "photos",
    "Tables 2 and 6 at smoke and tiny scale",
    INSIDE,
    "photographs",
    "free: public domain, Creative Commons",
    "scikit-image, scikit-learn, matplotlib",
)
DIGITS = Entry(
    "digits",
    "Table 5 at smoke and tiny scale",
    INSIDE,
    "Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, UCI 1998)",
    "Creative Commons BY 4.0",
    "scikit-learn",
)
TEXTURES = Entry(
    "textures",
    "Tables 3, 4 and 6 at smoke and tiny scale",
    INSIDE,
    "mosaics made from photographs",
    "as photos",
    "scikit-image",
)
IMAGENET = Entry(
    "imagenet",
    "Tables 2, 5 and 6, and pretraining for 3 and 4",
    IMAGENET_LAYOUT,
    "ImageNet-1k (Russakovsky et al., IJCV 2015)",
    "research only, by image-net.org's terms of access",
    IMAGENET_SOURCE,
)
FOLDER = Entry(
    "folder",
    "Tables 2, 5 and 6 on images of your own",
    FOLDER_LAYOUT,
    "images of your own",
    "that of the images",
    FOLDER_SOURCE,
)
PARQUET = Entry(
    "parquet",
    "Table 5 at small scale (CIFAR-10 in cifar10/); Tables 2, 5 and 6 on sets of Hugging Face",
    PARQUET_LAYOUT,
    "CIFAR-10 (Krizhevsky 2009), or as the set's page says",
    "that of the set; CIFAR-10's is given as unknown",
    PARQUET_SOURCE,
)
DATASETGAN = Entry(
    "datasetgan",
    "Tables 3 and 6: faces, cars, cats",
    GAN_LAYOUT,
    "DatasetGAN's annotations (Zhang et al., CVPR 2021)",
    "research only, by its repository's licence",
    GAN_SOURCE,
)
FEWSHOT = Entry(
    "fewshot",
    "Tables 3 and 6 on images of your own",
    FEWSHOT_LAYOUT,
    "images with masks of your own",
    "that of the images",
    FEWSHOT_SOURCE,
)
CITYSCAPES = Entry(
    "cityscapes",
    "Table 4 and Figure 1",
    CITYSCAPES_LAYOUT,
    "Cityscapes (Cordts et al., CVPR 2016)",
    "research only, by cityscapes-dataset.com's terms of use",
    CITYSCAPES_SOURCE,
)
CAMVID = Entry(
    "camvid",
    "street scenes at small scale",
    CAMVID_LAYOUT,
    "CamVid (Brostow et al., PRL 2009) in SegNet's version",
    "Creative Commons BY-NC",
    CAMVID_SOURCE,
)
ENTRIES = (PHOTOS, DIGITS, TEXTURES, IMAGENET, FOLDER, PARQUET, DATASETGAN, FEWSHOT, CITYSCAPES, CAMVID)
