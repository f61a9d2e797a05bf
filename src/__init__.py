"""datlab: the laboratory for ablations of deformable attention in vision transformers."""
