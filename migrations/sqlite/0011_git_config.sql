-- Whether commands of an agent may change the configuration and the hooks of git repositories in a project.

ALTER TABLE agents ADD COLUMN allow_git_config INTEGER NOT NULL DEFAULT 0 CHECK (allow_git_config IN (0, 1));
