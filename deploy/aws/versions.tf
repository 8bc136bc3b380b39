terraform {
  # 1.11: tests that give values to what a plan does not know yet.
  required_version = ">= 1.11, < 2.0"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # One version, since what a provider makes of an attribute is part of what was reviewed. `terraform init` adds the checksums; commit its lock file.
      version = "6.69.1"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = merge({ Project = var.name }, var.tags)
  }
}

data "aws_caller_identity" "this" {}

data "aws_partition" "this" {}
