"""The mesh's parts as Ray actors: thin hosts of mesh.node, mesh.supervisor and mesh.warden."""
