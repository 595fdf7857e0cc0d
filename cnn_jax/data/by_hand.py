"""Published data sets that are fetched by hand, and how to lay them out."""

BY_HAND: dict[str, str] = {
    "membranes": """\
membranes: 30 electron micrographs of neurons with membranes labelled (ISBI 2012 challenge), fetched by hand
  where: the training volume of the challenge "Segmentation of neuronal structures in EM stacks": train-volume.tif and
    train-labels.tif, or copies as PNG files. The labels of its test volume were never published.
  licence: of the authors; cite Cardona et al. 2010 and Arganda-Carreras et al. 2015.
  layout: membranes/images/0.png to 29.png and membranes/masks/0.png to 29.png. Slices of a TIFF file become these by
    from PIL import Image, ImageSequence
    for number, slice in enumerate(ImageSequence.Iterator(Image.open("train-volume.tif"))):
        slice.save(f"membranes/images/{number}.png")
  names: a file membranes/classes.csv with the lines "membrane,0" and "cell,255".
  use: --config=u_net_membranes --config.data.name=masks:membranes""",
    "hippocampus": """\
hippocampus: 260 magnetic resonance images with two parts of the hippocampus labelled, fetched by hand
  where: Task04_Hippocampus of the Medical Segmentation Decathlon, medicaldecathlon.com.
  licence: CC BY-SA 4.0; cite Simpson et al. 2019, arXiv 1902.09063, and Antonelli et al. 2022.
  layout: as it is unpacked, Task04_Hippocampus/imagesTr/*.nii.gz and labelsTr/*.nii.gz, with dataset.json beside them;
    files that begin with "._" are left out. NIfTI files need nibabel: pip install nibabel.
  use: --config=u_net_hippocampus --config.data.name=masks:Task04_Hippocampus""",
}
"""Name -> where it is, under which licence, how it is laid out, and how a config names it."""
