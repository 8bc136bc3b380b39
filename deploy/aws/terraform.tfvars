# Examples, so that a plan can be looked at before anything is decided: nobody has these ranges, and these images are nowhere. Write your own into
# a file beside this one whose name ends in .auto.tfvars, which is read after it; every variable is told of in variables.tf.
ranges_file   = "tests/ranges/plain.txt"
squid_image   = "example.com/egress-squid:1"
mustnot_image = "example.com/mustnot:0.1.0"
